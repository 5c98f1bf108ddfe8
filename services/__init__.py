"""The processes, each useful alone: transport, settings and wiring around the domains. No decisions.

The map:

    runtime/     what every service is built of
    api/         protos with their committed stubs, and messages <-> model
    registry/    nodes, their heartbeats and their pods
    ipam_aws/    pools of one AWS account and region
    worker/      Celery workers that do the cloud calls
    node/        the node daemon and its CNI plugin
    cli/         the `plimsoll` command
"""
