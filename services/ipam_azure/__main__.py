from services.ipam_azure.settings import Settings
from services.ipam_azure.wiring import build
from services.runtime.lifecycle import run

run("ipam-azure", Settings, build, many_peers=True)
