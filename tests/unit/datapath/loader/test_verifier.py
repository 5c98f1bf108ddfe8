"""What is kept of a verifier's log."""

from __future__ import annotations

from datapath.loader.verifier import refused_program, shorten, shorten_lines

TAIL = """\
; found = bpf_map_lookup_elem(&table, &key); @ pod.bpf.c:163
22: (18) r1 = 0xffff8881097a3800      ; R1=map_ptr(map=table,ks=4,vs=8)
24: (85) call bpf_map_lookup_elem#1   ; R0=map_value_or_null(id=4001,map=table,ks=4,vs=8)
; return found->packets; @ pod.bpf.c:165
25: (61) r1 = *(u32 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 28010 insns (limit 1000000) max_states_per_insn 4 total_states 404 peak_states 404 mark_read 0
"""


def test_the_end_counts_however_long_the_log() -> None:
    noise = "".join(
        f"; step {n} @ pod.bpf.c:{n}\n{n}: (07) r2 += 1\n{n}: R0=0 R1=ctx() R2={n}\nfrom {n} to {n + 1}: R0=0\n"
        for n in range(200_000)
    )
    kept = shorten(noise + TAIL)
    assert kept.endswith(TAIL.rstrip())
    assert len(kept.splitlines()) < 30
    assert shorten(TAIL) == TAIL.rstrip()


def test_a_log_of_one_complaint() -> None:
    text = "arg#0 type is not a struct\nprocessed 0 insns (limit 1000000) max_states_per_insn 0"
    assert shorten(text) == text
    assert shorten("") == ""


def test_states_between_the_instruction_and_the_complaint_are_left_out() -> None:
    log = "5: (61) r1 = *(u32 *)(r0 +0)\nR0=scalar() R1=ctx() R10=fp0\nR0 invalid mem access 'scalar'\nprocessed 6"
    assert "R10=fp0" not in shorten(log)
    assert "R0 invalid mem access 'scalar'" in shorten(log)


def test_long_lines_are_cut() -> None:
    assert max(map(len, shorten("; " + "x" * 9000 + "\n1: (61) r1 = 2\nbad").splitlines())) <= 200
    assert max(map(len, shorten_lines(["y" * 9000]))) <= 200


def test_which_program_it_was() -> None:
    messages = ["libbpf: prog 'from_pod': BPF program load failed: Permission denied", "libbpf: failed to load object"]
    assert refused_program(messages) == "from_pod"
    assert refused_program(["libbpf: elf: no such file"]) == ""
