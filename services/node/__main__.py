from services.node.settings import Settings
from services.node.wiring import build
from services.runtime.lifecycle import run

run("node", Settings, build)
