/* Holds every shared structure, so that a test can compare the compiled types with their mirror in Python. */
#include "program.h"

struct target _target;
struct cidr_key _cidr_key;
struct endpoint _endpoint;
struct node _node;
struct device _device;
struct flow_key _flow_key;
struct path _path;
struct flow _flow;
struct nat_key _nat_key;
struct nat _nat;
struct fragment_key _fragment_key;
struct fragment _fragment;
struct policy_key _policy_key;
struct policy _policy;
struct config _config;
struct runtime _runtime;
struct counter _counter;
struct event _event;
