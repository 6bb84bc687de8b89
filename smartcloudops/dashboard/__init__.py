"""What people and Prometheus see"""

from typing import TYPE_CHECKING

from smartcloudops.core.imports import front_door

if TYPE_CHECKING:
    from .access import hash_password as hash_password
    from .server import serve_command as serve_command
    from .web import create_app as create_app

__getattr__, __dir__, __all__ = front_door(
    __name__, {'create_app': 'web', 'serve_command': 'server', 'hash_password': 'access'}
)

_lazy = __getattr__


def __getattr__(name):
    "`app` is made when it is first asked for, so that importing the package needs no configuration."
    if name != 'app': return _lazy(name)
    from smartcloudops.dashboard.web import create_app
    app = globals()['app'] = create_app()
    return app


__all__ = [*__all__, 'app']
