"The command line: each command registers itself with the program when its module is imported."
import sys

from .memory import keep_small

keep_small(sys.orig_argv)             # before anything imports pandas

from . import actions, detect, doctor, history, incidents, policy, reports, run, targets, trial
from .front import main as main
