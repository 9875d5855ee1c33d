"""What a speech model knows about speech besides the brain: tasks, probes of its frozen layers, and their controls.

What a task is can be had from here without loading torch; what answers it is in the modules `features`, `evaluate`,
`controls`, `compare`, `demo_tasks` and `ctc`.
"""

from brainlit.downstream.clip import Clip, cut_clips
from brainlit.downstream.task import RecognitionTask, Task, make_recognition_task, make_task

__all__ = ["Clip", "RecognitionTask", "Task", "cut_clips", "make_recognition_task", "make_task"]
