"""What every service is built of.

settings    one class a service: file < environment < flags (settings_load); errors and help for people (settings_text)
addresses   "host:port" and "unix:/path"
logging     structured logs, JSON or console, for our code and for libraries
masking     takes secrets out of texts that people see: logs, errors, shown settings
lifecycle   `run`: open in order, SERVING when bound, one SIGTERM closes in reverse; notify tells systemd
clock       the machine's clock, as the domains want it
pki, tls    an authority for small sites; certificates that are read again when they change
server      gRPC with health and reflection; guard stands around each handler; identity says who calls and what they may
client      channels, for asyncio and for threads, with deadlines, retries and keepalive; rotation renews them
errors      a domain's error to google.rpc details and back, and to a paragraph for people
watch       keyed state followed by many, resumable and acknowledged: topic serves it, batch is what travels, follow
            consumes it; push sends it without a task for each idle stream
metrics     the Prometheus endpoint and what every server counts
tracing     OpenTelemetry, when an OTLP endpoint is set
store       one interface over backends (backend): sqlite with group_commit and apsw_dialect, and postgres; migrations,
            which migrate runs in a process of their own; store_error
leadership  one process at a time works on a database; advisory_lock is how, in PostgreSQL
memory      what a process that thousands of nodes stay connected to does to hold little for each
queue       Celery on Redis; redis runs a private one
"""

from services.runtime.memory import without_rich

without_rich()
