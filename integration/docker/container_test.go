//go:build docker

package docker

import (
	"testing"
)

// container is one host: a container on one network or more, known there by its alias.
// It is removed with the test, and its log is shown if the test failed.
type container struct {
	t     testing.TB
	alias string
	id    string // docker's name
}

// create makes a container on networks, without starting it. The options are docker's,
// the args the program's. The first network is the one that published ports lead to.
func create(t testing.TB, alias, image string, networks, options, args []string) *container {
	t.Helper()
	c := &container{t: t, alias: alias, id: randomName(run + "-" + alias + "-")}
	all := []string{"create", "--name", c.id, "--hostname", alias, "--label", label, "--network", networks[0], "--network-alias", alias}
	docker(t, append(append(append(all, options...), image), args...)...)
	t.Cleanup(c.remove)
	for _, n := range networks[1:] {
		c.rejoin(n)
	}
	return c
}

// remove ends the container and its data.
func (c *container) remove() {
	if c.t.Failed() {
		log, _ := tool("logs", "--tail", "60", c.id)
		c.t.Logf("%s:\n%s", c.alias, log)
	}
	_, _ = tool("rm", "-fv", c.id)
}

// do runs a docker command on the container: start, kill, pause, unpause.
func (c *container) do(command string) {
	c.t.Helper()
	docker(c.t, command, c.id)
}

// cutOff takes the container off a network; it runs on, and reaches nobody there.
func (c *container) cutOff(network string) {
	c.t.Helper()
	docker(c.t, "network", "disconnect", network, c.id)
}

// rejoin puts it back, under the name others know. Its address may be another one.
func (c *container) rejoin(network string) {
	c.t.Helper()
	docker(c.t, "network", "connect", "--alias", c.alias, network, c.id)
}
