from services.registry.settings import Settings
from services.registry.wiring import build
from services.runtime.lifecycle import run

if __name__ == "__main__":
    run("registry", Settings, build, many_peers=True)
