"""What people and Prometheus see"""

from typing import TYPE_CHECKING

from smartcloudops.core.imports import front_door

if TYPE_CHECKING:
    from .access import hash_password as hash_password
    from .server import fork_server as fork_server, serve_command as serve_command
    from .web import app as app, create_app as create_app

__getattr__, __dir__, __all__ = front_door(
    __name__, {'create_app': 'web', 'serve_command': 'server', 'fork_server': 'server', 'hash_password': 'access',
               'app': 'web'}
)
