from services.ipam_alibaba.settings import Settings
from services.ipam_alibaba.wiring import build
from services.runtime.lifecycle import run

run("ipam-alibaba", Settings, build, many_peers=True)
