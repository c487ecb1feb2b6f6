// sarama as an application, by the contract of tests/apps/journal.py: BOOTSTRAP TOPIC GROUP PROTOCOL MEMBER SESSION-MS INSTANCE.
// PROTOCOL is the assignor, range or sticky; sarama is eager.
//
// sarama does not say which commits were made, only which were not: there are no committed lines.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/IBM/sarama"
)

const (
	handleTime         = 2 * time.Millisecond
	commitAfterRecords = 20
	commitAfterTime    = 300 * time.Millisecond
	waitTime           = 100 * time.Millisecond
	retryTime          = 200 * time.Millisecond
)

// app is one member: sarama calls it at the beginning and the end of each of its generations, and once for each partition.
type app struct {
	member, topic string
}

func (a *app) say(event string, more map[string]any) {
	line := map[string]any{"m": a.member, "e": event}
	for key, value := range more {
		line[key] = value
	}
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(text, '\n'))
}

func (a *app) partitions(session sarama.ConsumerGroupSession) []int32 {
	return append([]int32{}, session.Claims()[a.topic]...)
}

func (a *app) Setup(session sarama.ConsumerGroupSession) error {
	a.say("assigned", map[string]any{"p": a.partitions(session), "g": session.GenerationID(), "id": session.MemberID(), "all": true})
	return nil
}

func (a *app) Cleanup(session sarama.ConsumerGroupSession) error {
	session.Commit()
	a.say("revoked", map[string]any{"p": a.partitions(session)})
	return nil
}

func (a *app) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	count, due := 0, time.NewTicker(commitAfterTime)
	defer due.Stop()
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			time.Sleep(handleTime)
			a.say("handled", map[string]any{"p": message.Partition, "o": message.Offset, "v": string(message.Value)})
			session.MarkMessage(message, "")
			if count++; count%commitAfterRecords != 0 {
				continue
			}
		case <-due.C:
		case <-session.Context().Done():
			return nil
		}
		session.Commit()
	}
}

func config(member, protocol string, session time.Duration) (*sarama.Config, error) {
	c := sarama.NewConfig()
	c.ClientID, c.Version = member, sarama.MaxVersion
	c.Metadata.RefreshFrequency = time.Second
	c.Consumer.MaxWaitTime = waitTime
	c.Consumer.Return.Errors = true
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.Group.Session.Timeout, c.Consumer.Group.Heartbeat.Interval = session, session/6
	switch protocol {
	case "range":
		c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRange()}
	case "sticky":
		c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategySticky()}
	default:
		return nil, fmt.Errorf("no protocol %s", protocol)
	}
	return c, nil
}

func run() error {
	if len(os.Args) != 8 || os.Args[7] != "" {
		return errors.New("usage: BOOTSTRAP TOPIC GROUP PROTOCOL MEMBER SESSION-MS, no INSTANCE")
	}
	session, err := strconv.Atoi(os.Args[6])
	if err != nil {
		return err
	}
	a := &app{member: os.Args[5], topic: os.Args[2]}
	c, err := config(a.member, os.Args[4], time.Duration(session)*time.Millisecond)
	if err != nil {
		return err
	}
	stopping, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var group sarama.ConsumerGroup
	for group == nil {
		if group, err = sarama.NewConsumerGroup([]string{os.Args[1]}, os.Args[3], c); err != nil {
			group = nil
			fmt.Fprintln(os.Stderr, err)
			wait(stopping)
		}
		if stopping.Err() != nil {
			break
		}
	}
	if group != nil {
		go func() {
			for err := range group.Errors() {
				a.say("refused", map[string]any{"o": map[string]int64{}, "why": err.Error()})
			}
		}()
		for stopping.Err() == nil {
			if err := group.Consume(stopping, []string{a.topic}, a); err != nil {
				fmt.Fprintln(os.Stderr, err)
				wait(stopping)
			}
		}
		if err := group.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	a.say("closed", nil)
	return nil
}

// wait is between two tries while the broker is away.
func wait(stopping context.Context) {
	select {
	case <-time.After(retryTime):
	case <-stopping.Done():
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
