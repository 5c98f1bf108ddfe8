#include "scan.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct scanner {
	const char *text;
	size_t length;
	size_t at;
};

/* Where a string's decoded bytes go. Longer ones are cut, and `overflow` says so. */
struct sink {
	char *bytes;
	size_t size;
	size_t used;
	bool overflow;
};

static bool scan_value(struct scanner *s, int depth);

static int peek(const struct scanner *s)
{
	return s->at < s->length ? (unsigned char)s->text[s->at] : -1;
}

static void skip_space(struct scanner *s)
{
	for (int c = peek(s); c == ' ' || c == '\t' || c == '\n' || c == '\r'; c = peek(s))
		s->at++;
}

static bool take(struct scanner *s, char wanted)
{
	if (peek(s) != (unsigned char)wanted)
		return false;
	s->at++;
	return true;
}

static void put(struct sink *sink, unsigned char byte)
{
	if (sink == NULL)
		return;
	if (sink->used + 1 < sink->size && byte != 0)
		sink->bytes[sink->used++] = (char)byte;
	else
		sink->overflow = true;
}

static void put_code_point(struct sink *sink, unsigned code)
{
	if (code < 0x80) {
		put(sink, (unsigned char)code);
	} else if (code < 0x800) {
		put(sink, (unsigned char)(0xc0 | code >> 6));
		put(sink, (unsigned char)(0x80 | (code & 0x3f)));
	} else if (code < 0x10000) {
		put(sink, (unsigned char)(0xe0 | code >> 12));
		put(sink, (unsigned char)(0x80 | (code >> 6 & 0x3f)));
		put(sink, (unsigned char)(0x80 | (code & 0x3f)));
	} else {
		put(sink, (unsigned char)(0xf0 | code >> 18));
		put(sink, (unsigned char)(0x80 | (code >> 12 & 0x3f)));
		put(sink, (unsigned char)(0x80 | (code >> 6 & 0x3f)));
		put(sink, (unsigned char)(0x80 | (code & 0x3f)));
	}
}

static bool hex4(struct scanner *s, unsigned *code)
{
	*code = 0;
	for (int i = 0; i < 4; i++) {
		int c = peek(s);
		unsigned digit;
		if (c >= '0' && c <= '9')
			digit = (unsigned)(c - '0');
		else if (c >= 'a' && c <= 'f')
			digit = (unsigned)(c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			digit = (unsigned)(c - 'A' + 10);
		else
			return false;
		*code = *code << 4 | digit;
		s->at++;
	}
	return true;
}

static bool scan_escape(struct scanner *s, struct sink *sink)
{
	static const char from[] = "\"\\/bfnrt";
	static const char to[] = "\"\\/\b\f\n\r\t";
	int c = peek(s);
	if (c <= 0)
		return false;
	s->at++;
	if (c == 'u') {
		unsigned code, low;
		if (!hex4(s, &code))
			return false;
		size_t before = s->at;
		if (code >= 0xd800 && code < 0xdc00 && take(s, '\\') && take(s, 'u') && hex4(s, &low) && low >= 0xdc00 &&
		    low < 0xe000)
			code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
		else
			s->at = before;
		put_code_point(sink, code);
		return true;
	}
	const char *found = strchr(from, c);
	if (found == NULL)
		return false;
	put(sink, (unsigned char)to[found - from]);
	return true;
}

static bool scan_string(struct scanner *s, struct sink *sink)
{
	if (!take(s, '"'))
		return false;
	for (;;) {
		int c = peek(s);
		if (c < 0x20) /* the end of the text, too */
			return false;
		s->at++;
		if (c == '"')
			break;
		if (c != '\\')
			put(sink, (unsigned char)c);
		else if (!scan_escape(s, sink))
			return false;
	}
	if (sink != NULL)
		sink->bytes[sink->used] = '\0';
	return true;
}

static bool digits(struct scanner *s)
{
	size_t before = s->at;
	for (int c = peek(s); c >= '0' && c <= '9'; c = peek(s))
		s->at++;
	return s->at > before;
}

static bool scan_number(struct scanner *s)
{
	take(s, '-');
	if (!take(s, '0') && !digits(s))
		return false;
	if (take(s, '.') && !digits(s))
		return false;
	if (take(s, 'e') || take(s, 'E')) {
		if (!take(s, '+'))
			take(s, '-');
		return digits(s);
	}
	return true;
}

static bool scan_word(struct scanner *s, const char *word)
{
	size_t length = strlen(word);
	if (s->length - s->at < length || memcmp(s->text + s->at, word, length) != 0)
		return false;
	s->at += length;
	return true;
}

static bool scan_array(struct scanner *s, int depth)
{
	take(s, '[');
	skip_space(s);
	if (take(s, ']'))
		return true;
	do {
		if (!scan_value(s, depth))
			return false;
	} while (take(s, ','));
	return take(s, ']');
}

static bool scan_object(struct scanner *s, int depth)
{
	take(s, '{');
	skip_space(s);
	if (take(s, '}'))
		return true;
	do {
		skip_space(s);
		if (!scan_string(s, NULL))
			return false;
		skip_space(s);
		if (!take(s, ':') || !scan_value(s, depth))
			return false;
	} while (take(s, ','));
	return take(s, '}');
}

/* A value with the space around it. */
static bool scan_value(struct scanner *s, int depth)
{
	bool ok;
	if (depth > SCAN_DEPTH_MAX)
		return false;
	skip_space(s);
	switch (peek(s)) {
	case '{':
		ok = scan_object(s, depth + 1);
		break;
	case '[':
		ok = scan_array(s, depth + 1);
		break;
	case '"':
		ok = scan_string(s, NULL);
		break;
	case 't':
		ok = scan_word(s, "true");
		break;
	case 'f':
		ok = scan_word(s, "false");
		break;
	case 'n':
		ok = scan_word(s, "null");
		break;
	default:
		ok = scan_number(s);
	}
	if (ok)
		skip_space(s);
	return ok;
}

/* A string value into `bytes`. False leaves the scanner behind the value if it was well-formed; `*malformed` if not. */
static bool wanted_string(struct scanner *s, char *bytes, size_t size, bool *malformed)
{
	struct sink sink = {.bytes = bytes, .size = size};
	skip_space(s);
	if (peek(s) != '"') {
		*malformed = !scan_value(s, 1);
		return false;
	}
	*malformed = !scan_string(s, &sink);
	skip_space(s);
	return !*malformed && !sink.overflow;
}

static bool wanted_seconds(struct scanner *s, double *seconds, bool *malformed)
{
	char text[32];
	skip_space(s);
	size_t from = s->at;
	int c = peek(s);
	*malformed = !scan_value(s, 1);
	size_t length = s->at - from;
	if (*malformed || !((c >= '0' && c <= '9') || c == '-') || length >= sizeof text)
		return false;
	memcpy(text, s->text + from, length);
	text[length] = '\0';
	*seconds = strtod(text, NULL);
	return *seconds > 0 && *seconds <= 3600;
}

enum scan_result scan_config(const char *text, size_t length, struct config *config, size_t *where)
{
	struct scanner s = {.text = text, .length = length};
	enum scan_result result = SCAN_OK;

	memset(config, 0, sizeof *config);
	skip_space(&s);
	if (!take(&s, '{'))
		goto malformed;
	skip_space(&s);
	if (!take(&s, '}')) {
		do {
			char key[16];
			struct sink sink = {.bytes = key, .size = sizeof key};
			bool bad = false;
			skip_space(&s);
			if (!scan_string(&s, &sink))
				goto malformed;
			skip_space(&s);
			if (!take(&s, ':'))
				goto malformed;
			if (!sink.overflow && strcmp(key, "socket") == 0) {
				if (!wanted_string(&s, config->socket, sizeof config->socket, &bad))
					result = SCAN_BAD_SOCKET;
			} else if (!sink.overflow && strcmp(key, "cniVersion") == 0) {
				if (!wanted_string(&s, config->cni_version, sizeof config->cni_version, &bad))
					result = SCAN_BAD_VERSION;
			} else if (!sink.overflow && strcmp(key, "timeout_s") == 0) {
				if (!wanted_seconds(&s, &config->timeout_s, &bad))
					result = SCAN_BAD_TIMEOUT;
			} else {
				bad = !scan_value(&s, 1);
			}
			if (bad)
				goto malformed;
		} while (take(&s, ','));
		if (!take(&s, '}'))
			goto malformed;
	}
	skip_space(&s);
	if (s.at == s.length)
		return result;
malformed:
	*where = s.at;
	return SCAN_MALFORMED;
}
