"""The clouds, one module each behind ipam.ports.CloudProvider; their SDKs are imported when they are used.

The map:

    aws              secondary addresses of elastic network interfaces
    aws_answers      EC2's answers as the domain's facts
    aws_errors       EC2's errors as the domain's, each with what to do about it
    aws_settings     what may be set for AWS, checked before the first call
    incapable        refuses what a cloud has no calls for
"""
