"""What a speech model knows about speech besides the brain: tasks, probes of its frozen layers, and their controls."""

from brainlit.downstream.clip import Clip, cut_clips
from brainlit.downstream.compare import Comparison, compare
from brainlit.downstream.controls import task_controls, untrained, with_controls
from brainlit.downstream.ctc import CtcConfig, recognise
from brainlit.downstream.demo_tasks import DEMO_TASKS, DemoSize, demo_tasks
from brainlit.downstream.evaluate import evaluate
from brainlit.downstream.features import clip_features, task_features
from brainlit.downstream.probes import ProbeConfig
from brainlit.downstream.recognition import RecognitionResult, compare_recognition, load_recognition_result
from brainlit.downstream.result import TaskResult, load_result
from brainlit.downstream.scores import Draws, Estimate
from brainlit.downstream.task import RecognitionTask, Task, make_recognition_task, make_task

__all__ = [
    "DEMO_TASKS",
    "Clip",
    "Comparison",
    "CtcConfig",
    "DemoSize",
    "Draws",
    "Estimate",
    "ProbeConfig",
    "RecognitionResult",
    "RecognitionTask",
    "Task",
    "TaskResult",
    "clip_features",
    "compare",
    "compare_recognition",
    "cut_clips",
    "demo_tasks",
    "evaluate",
    "load_recognition_result",
    "load_result",
    "make_recognition_task",
    "make_task",
    "recognise",
    "task_controls",
    "task_features",
    "untrained",
    "with_controls",
]
