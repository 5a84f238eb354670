r"""How soon a policy finds a good recipe, against others, in recorded learning curves.

    make bench-policy
    .venv/bin/python -m tests.benchmarks.policy --seeds 3 --methods tunekit random ray

The curves are real: random recipes of the space `resnet`, each trained in full on digits, MNIST and
CIFAR-10, in results/curves-resnet-*.json.gz. They come from searches without early stopping:

    tunekit search digits --space resnet --sampler random --scheduler none --samples 400 --epochs 27 \
        --val-fraction 0.5 --seed 4 --name curves
    tunekit search mnist --space resnet --sampler random --scheduler none --samples 300 --epochs 27 \
        --train-limit 2719 --val-fraction 0.7356 --set input.size=8 --seed 1 --name curves-mnist
    tunekit search cifar10 --space resnet --sampler random --scheduler none --samples 240 --epochs 27 \
        --train-limit 2719 --val-fraction 0.7356 --set input.size=8 --seed 6 --name curves-cifar10
    .venv/bin/python -m tests.benchmarks.policy.record results/curves results/curves-resnet-digits.json.gz \
        --hardware "2 cores of ..."

A table is replayed by nearest neighbour, where keys count as far as results depend on them
(tunekit/tuning/similarity.py). Some hundred recipes are few for 18 keys, so two dense tables are compared by
themselves: 2,000 recipes of small networks with 7 keys, results/curves-small-networks-photographs.json.gz and
-four-synthetic.json.gz (recorded by dense.py).

So the same record answers for many proposals, which no training does. With --once each answers for one, until
all have (each_once.py); the smaller the table, the sooner a policy that stops most trials early is through.

With --smooth any recipe has a curve of its own, that of a model (smooth.py): for each of five tasks one that
was fitted on 200 recorded recipes of small networks, in results/curves-small-networks-*.json.gz (recorded by
small_networks.py), and one fitted on each table of residual networks. Each of these two families is compared
by itself. How well the models, and the nearest recipe, rank what is left out is printed by
cross_validation.py.

    .venv/bin/python -m tests.benchmarks.policy --smooth
    .venv/bin/python -m tests.benchmarks.policy.cross_validation

tunekit always tries the default recipe first, and its sampler learns from it; others begin as their own
documentation says. The methods ray-default, ray@3-default, bohb-default and mobster-default are told it too
(`points_to_evaluate`).

All these are models of training. In live.py every trial really trains, a small network in seconds or a
residual one in a minute, on tasks of its own; images that no method sees judge what it holds for the best.

    .venv/bin/python -m tests.benchmarks.policy.live DATA_DIR

Its task `emulated-resnet-mnist` answers from a model again, with noise, learned from what such searches tried
(emulated_resnets.py): for ideas that need many searches of residual networks.

The space `resnet` has warm starts, chosen from these tables (warm_starts.py) and on CIFAR-10, and
a prior, which is these tables themselves (prior.py). A replay uses neither unless it is told which. What a
prior and such warm starts are worth on data that had no say, here on digits:

    others="results/curves-resnet-mnist.json.gz results/curves-resnet-cifar10.json.gz"
    .venv/bin/python -m tests.benchmarks.policy.prior others.prior.json.gz $others
    .venv/bin/python -m tests.benchmarks.policy.warm_starts $others > others.toml
    .venv/bin/python -m tests.benchmarks.policy --tables results/curves-resnet-digits.json.gz \
        --prior others.prior.json.gz --warm-starts others.toml --methods tunekit from-scratch ray

Every method searches them in the same virtual-clock loop (`tunekit.tuning.replay`) with 4 workers, for as
many epochs as 40 full trainings have.

Regret. At any time each method's incumbent is the trial whose latest value is highest, whatever the
epoch, and it is scored by what its *recipe* had after the last epoch: a method that stops early is not
punished for an incumbent that is not trained to its end yet, and no method is rewarded for a lucky epoch.
Normalised regret in %: 0 is the best recipe of the table by that score, 100 the median one; in smooth curves
the best and the median of 1,500 random recipes, so that a better one than these has less than 0. The stock
combination's result counts as reached by a replay at the epoch from which on its incumbent was as good until
the end, and by a method when the mean regret of its replays is that low for the first time.

BOHB, MOBSTER and CQR are those of Syne Tune 0.14.2; later versions dropped MOBSTER. It needs NumPy 1.26,
so it lives in an environment of its own, of Python 3.11 or 3.12; the results of both environments meet in
the file of --out (`results/policy-benchmark.json`). Without it, its rows say "not installed".

    python3.11 -m venv .venv-syne-tune
    .venv-syne-tune/bin/pip install --editable ".[benchmark]"
    .venv-syne-tune/bin/python -m tests.benchmarks.policy --methods bohb mobster cqr
    .venv-syne-tune/bin/python -m tests.benchmarks.policy --methods bohb mobster --smooth
    make bench-policy

(The two packages that these methods need are enough, with PYTHONPATH=. instead of the editable
installation: `pip install "syne-tune[gpsearchers,kde,sklearn,blackbox-repository]==0.14.2" "optuna>=5,<6"`.)
"""
