"""Train in child processes that are killed at random moments, until the run is complete. Prints the number of kills.

Arguments: home, seed, YAML file of the recipe, most kills. Children are forked from a process that has loaded
everything, so that a kill falls into the training and not into the start of Python.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from conviction.core.run_folder import list_run_folders
from conviction.run import resume, train


def train_in_child(home: Path, recipe: str) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if list_run_folders(home):
                resume("latest", home=home)
            else:
                train(recipe, home=home)
            code = 0
        finally:
            os._exit(code)
    return child


def main() -> None:
    home, chance, recipe, most_kills = Path(sys.argv[1]), random.Random(int(sys.argv[2])), sys.argv[3], int(sys.argv[4])
    num_kills = 0
    while True:
        child = train_in_child(home, recipe)
        if num_kills < most_kills:
            time.sleep(chance.uniform(0.02, 0.9))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status) != 0:
                sys.exit("the child failed")
            break
        num_kills += 1
    print(num_kills)


if __name__ == "__main__":
    main()
