"""Celery workers that do the cloud calls of one account and region.

The map:

    settings         what can be set
    wiring           builds a worker: budget and queue, the cloud's API, the IPAM service's journal, the executor
    tasks            the one task: perform an intent
    providers        which cloud, and its SDK with it
    consumer         runs a Celery worker under the service's lifecycle
    clients          the IPAM service as its workers see it
    budget           the account's allowance of calls; buckets: where its tokens lie, in Redis by budget.lua
    metrics          what Prometheus is told
"""
