"""Airflow 3: plan, train the runs side by side, analyse. Not run here: Airflow is no dependency of ours.

Put this file into the DAGs folder; BIMIX_SOURCE, BIMIX_PLAN and BIMIX_TRAIN are in the workers' environment.
The runs that have failed can be cleared in Airflow and are trained again; the analysis then follows.
"""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator  # type: ignore[import-not-found]  # not ours to have
from airflow.sdk import DAG  # type: ignore[import-not-found]  # likewise

RUNS = 8
PLAN = f'bimix plan code web books --runs {RUNS} --out "$BIMIX_PLAN" --command "$BIMIX_TRAIN"'
TRAIN = 'bash "$BIMIX_PLAN/runs.sh" "$INDEX"'
ANALYZE = f'bimix analyze "$BIMIX_SOURCE" --tokens 100e9 --wait {RUNS} --timeout 3600 --write-back'

with DAG("bimix_mixture", schedule=None, catchup=False):
    plan = BashOperator(task_id="plan", bash_command=PLAN)
    train = BashOperator.partial(task_id="train", bash_command=TRAIN, append_env=True, retries=1).expand(
        env=[{"INDEX": str(index)} for index in range(RUNS)]
    )
    analyze = BashOperator(task_id="analyze", bash_command=ANALYZE)
    plan.set_downstream(train)
    train.set_downstream(analyze)
