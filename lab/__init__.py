"""The whole system on one machine: fake clouds, the fabric that makes them real in packets, services, nodes and pods.

cli.py        `plimsoll lab run|clean|list|fake-ec2`, `python -m lab`
run.py        a lab from start to end; table.py what people see of it, checks.py what `--once` proves
lab.py        the parts of a running lab: what tests use as a library; options.py what it can be told
programs.py   every process with its settings; processes.py starts, watches and ends them
fabric.py     the VPC's router; topology.py says what to change when the cloud's state does; netns.py namespaces
pods.py       pods through the CNI plugin; probe.py pings from them, outside.py tells whose address left
state.py      folder, lock and journal; cleaning up after a lab that was killed
clouds.py     which clouds a lab can run on; cloud_admin.py speaks to the admin endpoint that all fakes have
fake_cloud/   what all fake clouds share
fake_alibaba/ an Alibaba Cloud
fake_azure/   an Azure Resource Manager
fake_ec2/     an EC2; ec2_admin.py speaks its API too
site/         only the central services, as real processes on loopback: needs no root
"""
