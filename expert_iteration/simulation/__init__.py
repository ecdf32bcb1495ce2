"""How long a run would take: the real scheduler, with stages that only let time pass on their own clock."""
