"""`flask db upgrade` and `flask bootstrap` in one process: importing the application once saves a second."""

from flask.cli import ScriptInfo

from wsgi import app


def main() -> None:
    for arguments in (["db", "upgrade"], ["bootstrap"]):
        app.cli.main(args=arguments, obj=ScriptInfo(create_app=lambda: app), standalone_mode=False)


if __name__ == "__main__":
    main()
