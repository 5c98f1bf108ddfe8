from services.runtime.lifecycle import run
from services.worker.settings import Settings
from services.worker.wiring import build

run("worker", Settings, build)
