"""The processes, each useful alone: transport, settings and wiring around the domains. No decisions.

The map:

    runtime/     what every service is built of
    api/         protos with their committed stubs, and messages <-> model
    registry/    nodes, their heartbeats and their pods
    ipam/        pools of one account and region, whatever the cloud
    ipam_aws/    the process that does it for AWS, ipam_azure/ and ipam_alibaba/ those for the other clouds
    worker/      Celery workers that do the cloud calls
    node/        the node daemon and its CNI plugin
    cli/         the `plimsoll` command
"""
