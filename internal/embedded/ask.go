package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Ask runs one command on the server and gives the texts of its answer, those of an array one after the other. Nothing is an
// empty text. It is for setting servers up and breaking them, and knows no more of the protocol than that takes.
func (v *Valkey) Ask(ctx context.Context, words ...string) ([]string, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", v.Addr())
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	var b strings.Builder
	commands := [][]string{words}
	if password := v.settings["requirepass"]; password != "" {
		commands = [][]string{{"AUTH", password}, words}
	}
	for _, command := range commands {
		fmt.Fprintf(&b, "*%d\r\n", len(command))
		for _, word := range command {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(word), word)
		}
	}
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return nil, err
	}
	answers := bufio.NewReader(conn)
	var texts []string
	for range commands {
		if texts, err = readTexts(answers); err != nil {
			return nil, fmt.Errorf("%s on %s: %w", words[0], v.Addr(), errors.Join(err, ctx.Err()))
		}
	}
	return texts, nil
}

// readTexts reads one answer.
func readTexts(from *bufio.Reader) ([]string, error) {
	line, err := from.ReadString('\n')
	if err != nil {
		return nil, err
	}
	kind, text := line[0], strings.TrimSpace(line[1:])
	switch kind {
	case '-':
		return nil, errors.New(text)
	case '+', ':':
		return []string{text}, nil
	}
	length, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	if length < 0 {
		return []string{""}, nil
	}
	if kind == '$' {
		bytes := make([]byte, length+2)
		if _, err := io.ReadFull(from, bytes); err != nil {
			return nil, err
		}
		return []string{string(bytes[:length])}, nil
	}
	var texts []string
	for range length {
		more, err := readTexts(from)
		if err != nil {
			return nil, err
		}
		texts = append(texts, more...)
	}
	return texts, nil
}
