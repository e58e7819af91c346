"""Import every task's registered objects; a new task adds its line here."""

import ilqljax.models.builders
import ilqljax.tasks.hiring.objects
import ilqljax.tasks.wordle.objects  # noqa: F401
