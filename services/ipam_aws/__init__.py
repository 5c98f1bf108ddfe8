"""The IPAM service of one AWS account and region: watches nodes, journals intents, tells nodes their pools."""
