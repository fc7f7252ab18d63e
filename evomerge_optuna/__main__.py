"""`python -m evomerge_optuna` is the command line."""

from evomerge_optuna.cli import main

if __name__ == "__main__":
    main()
