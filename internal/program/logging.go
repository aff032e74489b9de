package program

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Logging is the group of options about the log, which goes to Process.Stderr.
type Logging struct {
	LogLevel  string `env:"LOG_LEVEL" default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" help:"debug, info, warn or error."`
	LogFormat string `env:"LOG_FORMAT" default:"" enum:",json,console" placeholder:"FORMAT" help:"json or console. Default: console on a terminal, json elsewhere."`
}

// The same message of the same level is logged so often in so long a time, and no more.
const (
	repeats      = 10
	repeatWindow = 10 * time.Second
)

// Logger makes the program's logger, and the level that can be changed while it runs.
func (o *Logging) Logger(p *Process) (*zap.Logger, zap.AtomicLevel) {
	level := zap.NewAtomicLevel()
	if err := level.UnmarshalText([]byte(o.LogLevel)); err != nil {
		level.SetLevel(zap.InfoLevel) // the choices of the flag leave no other
	}
	config := zap.NewProductionEncoderConfig()
	config.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	config.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(config)
	if o.LogFormat == "console" || o.LogFormat == "" && onTerminal(p.Stderr) {
		config.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		config.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(config)
	}
	out := zapcore.Lock(zapcore.AddSync(p.Stderr))
	loud := zapcore.NewCore(encoder, out, zap.LevelEnablerFunc(func(l zapcore.Level) bool { return l >= zap.InfoLevel && level.Enabled(l) }))
	// Whoever asks for debug wants every line.
	quiet := zapcore.NewCore(encoder, out, zap.LevelEnablerFunc(func(l zapcore.Level) bool { return l < zap.InfoLevel && level.Enabled(l) }))
	return zap.New(zapcore.NewTee(zapcore.NewSamplerWithOptions(loud, repeatWindow, repeats, 0), quiet)).Named(p.Name), level
}
