// Package tree holds the rules of the source tree that a compiler doesn't check:
// which package may import which, who may start goroutines, what is documented, and
// that what the documentation shows can be parsed. Each rule is a function over
// parsed source, so that its test can show it a violation first.
package tree
