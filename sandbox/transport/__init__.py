"""How requests reach the machines, and what may go wrong on the way. It knows neither API."""
