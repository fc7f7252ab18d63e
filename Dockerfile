FROM python:3.11-slim

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY evomerge_optuna ./evomerge_optuna
# The CPU build of torch; the one with CUDA is several gigabytes larger.
RUN pip install --no-cache-dir --constraint constraints.txt \
    --extra-index-url https://download.pytorch.org/whl/cpu '.[postgres]' \
    && useradd --create-home evomerge && mkdir /data && chown evomerge /data
USER evomerge
ENTRYPOINT ["evomerge-optuna"]
