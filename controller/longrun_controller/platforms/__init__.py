"""What each Terraform platform needs from the controller beside Terraform itself."""

import importlib
from types import ModuleType

from longrun_controller.errors import ProblemError

PLATFORMS = ("container", "libvirt", "aws")


def platform_of(name: str) -> ModuleType:
    """Return the module of a platform, and no other: importing the cloud's library takes longer than most commands.

    Raises:
        ProblemError: There is no such platform.
    """
    if name not in PLATFORMS:
        message = f"no platform {name!r} (there are: {', '.join(PLATFORMS)}): put `platform` in server.tfvars right"
        raise ProblemError(message)
    return importlib.import_module(f"longrun_controller.platforms.{name}")
