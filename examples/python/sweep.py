"""A parameter sweep: one job for each learning rate and seed, and the best of their results as they come.

python sweep.py [JOBS]

It finds the server of jobs as the command line does: by HODEI_URL and the like, or by the current context.
"""

import itertools
import json
import sys

import hodei

# What a job runs. It gets its parameters in its environment, says how far it is, and prints its result as the last line.
TRAIN = """
import json, os, random

rate, seed = float(os.environ["RATE"]), int(os.environ["SEED"])
noise = random.Random(seed)
loss = 1.0
for step in range(1000):
    loss -= rate * (loss - 0.1) + noise.gauss(0, rate / 50)
print(json.dumps({"rate": rate, "seed": seed, "loss": round(loss, 4)}))
"""


def main(wanted: int) -> None:
    """Run the sweep and print the best result."""
    parameters = itertools.islice(itertools.product([0.001, 0.003, 0.01, 0.03], range(1000)), wanted)
    with hodei.Client() as client:
        jobs = client.submit_many(
            hodei.JobSpec(["python3", "-c", TRAIN], env={"RATE": str(rate), "SEED": str(seed)}, max_attempts=2)
            for rate, seed in parameters
        )
        best: dict[str, float] = {}
        for count, job in enumerate(client.as_completed(jobs), 1):
            if job.state is not hodei.JobState.SUCCEEDED:
                print(f"{job.id} {job.state.value}: {job.cause}", file=sys.stderr)
                continue
            result = json.loads(job.output().splitlines()[-1])
            if not best or result["loss"] < best["loss"]:
                best = result
                print(f"{count}/{len(jobs)}: {best}")
        print("best:", json.dumps(best))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
