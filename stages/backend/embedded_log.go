package backend

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logLimit is the size from which a log is set aside at the next start.
const logLimit = 16 << 20

// openLog opens etcd's log for appending. A large one of earlier runs is kept as
// etcd.log.1, one generation.
func openLog(dir string) (*os.File, error) {
	name := filepath.Join(dir, logName)
	info, err := os.Stat(name)
	switch {
	case err == nil && info.Size() > logLimit:
		if err := os.Rename(name, name+".1"); err != nil {
			return nil, err
		}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// etcdLogger writes warnings to the file. What etcd logs before it ends the process
// goes to stderr too: a file nobody looks at is no place for last words.
func etcdLogger(file *os.File) *zap.Logger {
	format := zap.NewProductionEncoderConfig()
	format.EncodeTime = zapcore.ISO8601TimeEncoder
	encoder := zapcore.NewJSONEncoder(format)
	return zap.New(zapcore.NewTee(
		zapcore.NewCore(encoder, zapcore.Lock(file), zap.WarnLevel),
		zapcore.NewCore(encoder.Clone(), zapcore.Lock(os.Stderr), zap.DPanicLevel),
	))
}
