package metrics

import "time"

// Reloads tells how it stands with the configuration file: whether it was used as it is,
// when it was used last, and how many of its keys need a restart.
func (m *Metrics) Reloads(status func() (ok bool, at time.Time, pending int)) {
	m.gauge("sharder_config_last_reload_successful", "1 if the configuration file, as it is, was used; 0 if it has a mistake.", nil, func() float64 {
		if ok, _, _ := status(); ok {
			return 1
		}
		return 0
	})
	m.gauge("sharder_config_last_reload_success_timestamp_seconds", "When the configuration file was used last.", nil, func() float64 {
		_, at, _ := status()
		return float64(at.UnixMilli()) / 1000
	})
	m.gauge("sharder_config_restart_needed", "Keys of the configuration file that say something else than what runs, and need a restart.", nil, func() float64 {
		_, _, pending := status()
		return float64(pending)
	})
}
