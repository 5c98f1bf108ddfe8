"""The clouds, one module each behind ipam.ports.CloudProvider; their SDKs are imported when they are used.

The map:

    alibaba            secondary addresses and prefixes of elastic network interfaces of Alibaba Cloud
    alibaba_answers    answers of ECS and VPC as the domain's facts
    alibaba_client     the SDK's clients of ECS and VPC behind one
    alibaba_errors     their errors as the domain's, each with what to do about it
    alibaba_settings   what may be set for Alibaba Cloud, checked before the first call
    aws                secondary addresses of elastic network interfaces
    aws_answers        EC2's answers as the domain's facts
    aws_errors         EC2's errors as the domain's, each with what to do about it
    aws_settings       what may be set for AWS, checked before the first call
    incapable          refuses what a cloud has no calls for
"""
