"""Import every task's registered objects; a new task adds its line here."""

import ilqljax.models.builders
import ilqljax.tasks.hiring.objects  # noqa: F401
