"""What people and Prometheus see"""

from typing import TYPE_CHECKING

from smartcloudops.core.imports import front_door

if TYPE_CHECKING:
    from flask import Flask

    from smartcloudops.dashboard.access import hash_password as hash_password
    from smartcloudops.dashboard.server import serve_command as serve_command
    from smartcloudops.dashboard.web import create_app as create_app
    app: Flask

_lazy, __dir__, _names = front_door(
    __name__, {'create_app': 'web', 'serve_command': 'server', 'hash_password': 'access'})
__all__ = ['create_app', 'serve_command', 'hash_password', 'app']


def __getattr__(name):
    "`app` is made when it is first asked for, so that importing the package needs no configuration."
    if name != 'app': return _lazy(name)
    from smartcloudops.dashboard.web import create_app
    app = globals()['app'] = create_app()
    return app
