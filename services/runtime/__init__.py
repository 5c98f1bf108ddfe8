"""What every service is built of.

settings    one class a service: file < environment < flags, errors that say what to do
logging     structured logs, JSON or console, for our code and for libraries
lifecycle   `run`: open in order, SERVING when bound, one SIGTERM closes in reverse
pki, tls    an authority for small sites; certificates that are read again when they change
server      gRPC with health, reflection, identities and rules, metrics, traces, error details
client      channels, for asyncio and for threads, with deadlines, retries and keepalive
errors      a domain's error to google.rpc details and back, and to a paragraph for people
watch       (topic, follow) keyed state followed by many, resumable and acknowledged
metrics     the Prometheus endpoint and what every server counts
tracing     OpenTelemetry, when an OTLP endpoint is set
store       one repository interface over SQLite and PostgreSQL
queue       Celery on Redis; `redis` runs a private one
"""
