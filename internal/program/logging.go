package program

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Logging is the group of options about the log, which goes to Process.Stderr.
type Logging struct {
	LogLevel  string `env:"LOG_LEVEL" default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" help:"debug, info, warn or error."`
	LogFormat string `env:"LOG_FORMAT" default:"" enum:",json,console" placeholder:"FORMAT" help:"json or console. Default: console on a terminal, json elsewhere."`
}

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
	core := zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(p.Stderr)), level)
	return zap.New(core).Named(p.Name), level
}
