// Command ship makes what is shipped: the image and the archives of a release. It needs neither Docker nor a network.
//
// Both are reproducible: the same source, version and tool chain give the same bytes, wherever and whenever they are made.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "ship: %v\n", err)
		os.Exit(1)
	}
}

const usage = `ship [flags] image|archives

  image     an OCI layout (DIR/image) and a file for docker load (DIR/image.tar) for each architecture
  archives  a .tar.gz and an SBOM for each architecture, and SHA256SUMS`

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("ship", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), usage)
		flags.PrintDefaults()
	}
	source := flags.String("source", ".", "folder of the source")
	out := flags.String("out", "dist", "folder for what is made")
	version := flags.String("version", "unknown", "what the programs say they are")
	revision := flags.String("revision", "unknown", "commit of the source")
	arches := flags.String("arch", "amd64,arm64", "architectures, separated by commas")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r := Release{Source: *source, Version: *version, Revision: *revision, Arches: strings.Split(*arches, ",")}
	switch flags.Arg(0) {
	case "image":
		return r.WriteImages(ctx, *out)
	case "archives":
		return r.WriteArchives(ctx, *out)
	}
	flags.Usage()
	return fmt.Errorf("say image or archives, not %q", flags.Arg(0))
}
