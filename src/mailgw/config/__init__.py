"""Every key, declared once: its name, type, default, meaning and documentation.

`load` gives the Settings or raises ConfigError; `read` tells also where each value came
from and what is worth a warning. Below the program's start nobody sees text or a dict,
only its own section of the Settings, passed in.
"""

from mailgw.config.finding import ConfigError, Finding, Severity
from mailgw.config.settings import Configuration, Settings, load, read

__all__ = ["ConfigError", "Configuration", "Finding", "Settings", "Severity", "load", "read"]
