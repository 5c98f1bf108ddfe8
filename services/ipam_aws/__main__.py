from services.ipam_aws.settings import Settings
from services.ipam_aws.wiring import build
from services.runtime.lifecycle import run

run("ipam-aws", Settings, build, many_peers=True)
