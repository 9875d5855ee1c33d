"""What a speech model knows about speech besides the brain: tasks, probes of its frozen layers, and their controls."""

from brainlit.downstream.clip import Clip, cut_clips
from brainlit.downstream.task import RecognitionTask, Task, make_recognition_task, make_task

__all__ = ["Clip", "RecognitionTask", "Task", "cut_clips", "make_recognition_task", "make_task"]
