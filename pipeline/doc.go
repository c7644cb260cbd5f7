// Package pipeline is the runtime that chains are made of: stages that call each
// other, and streams that are connected by bounded channels.
package pipeline
