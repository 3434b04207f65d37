"""What each Terraform platform needs from the controller beside Terraform itself."""

from types import ModuleType

from longrun_controller.errors import ProblemError
from longrun_controller.platforms import container

PLATFORMS: dict[str, ModuleType] = {"container": container}


def platform_of(name: str) -> ModuleType:
    """Return the module of a platform.

    Raises:
        ProblemError: There is no such platform.
    """
    if name not in PLATFORMS:
        message = f"no platform {name!r} (there are: {', '.join(PLATFORMS)}): put `platform` in server.tfvars right"
        raise ProblemError(message)
    return PLATFORMS[name]
