"""The registry: which nodes there are, whether they live, and which endpoints (pods) they run.

model, errors, ports   facts, what can go wrong, what is consumed
identities             numbers of sets of labels: which labels count, who gets which number, when it may go to others
service                Registry: all decisions, in memory, written down before they are told
store, migrations      its tables on SQLite or PostgreSQL
pages                  page tokens of the listings
handlers, wire         gRPC: the watch stream and the listings; messages <-> facts
metrics                what Prometheus is told
settings, wiring       what can be set; the object graph
testing                fakes of the ports
"""
