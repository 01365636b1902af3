"""What recorded numbers mean: step metrics, verdict, alarms, what-if, rescoring, closed forms. Torch-free.

In: `StepRecord`s or a `Reader`. Out: plain numbers and sentences.
"""
