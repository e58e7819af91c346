"""Ready tables of the law's examples, written and audited."""

from ilqljax.hiring.audit.market import AuditConfig
from ilqljax.hiring.audit.ready_table import audit_ready_table, load_ready_table

SEX = [("Male", 92, 50), ("Female", 76, 34)]
RACE = [("Hispanic", 28, 18), ("White", 40, 15), ("Black", 32, 16), ("Native Hawaiian or Pacific Islander", 8, 5)]
RACE.append(("Asian", 24, 10))


def write_table(path, groups, *, kind, name="sex", extra=()):
    lines = [f"id,{name},{kind}"]
    for category, n, high in groups:
        lines += [f'{category}{i},"{category}",{int(i < high)}' for i in range(n)]
    path.write_text("\n".join([*lines, *extra]) + "\n")
    return path


def audit(path, **settings):
    ready = load_ready_table(path)
    return audit_ready_table(ready, AuditConfig(ready.table.names, **settings))
