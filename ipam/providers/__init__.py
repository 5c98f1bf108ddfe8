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
    azure              IP configurations of network interfaces, of single machines and scale sets
    azure_answers      ARM's answers as the domain's facts
    azure_client       the calls of ARM, each made once
    azure_errors       ARM's errors as the domain's, each with what to do about it
    azure_ids          ids of Azure's resources, in lower case
    azure_public       static public addresses out of public IP prefixes
    azure_settings     what may be set for Azure, checked before the first call
    azure_writes       writes of whole resources, one at a time and several changes together
    incapable          refuses what a cloud has no calls for
"""
